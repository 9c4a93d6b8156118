//! Questions to RDS. Each is one call, or as many as there are pages.

use std::sync::Arc;

use aws_sdk_rds::config::retry::RetryConfig;
use aws_sdk_rds::types::Filter;
use aws_sdk_rds::{Client, Config};
use pgtenant_aws::Aws;
use tokio::sync::OnceCell;

use crate::cluster::{Cluster, Instance, Maintenance, Parameters};
use crate::fault::RdsFault;

const ATTEMPTS: u32 = 3;
const FORCE_SSL: &str = "rds.force_ssl";

/// RDS in one region. Clones share a client, which is made when it is first needed.
#[derive(Debug, Clone)]
pub struct Rds {
    aws: Aws,
    region: Arc<str>,
    client: Arc<OnceCell<Client>>,
}

impl Rds {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(aws: &Aws, region: &str) -> Self {
        Self { aws: aws.clone(), region: Arc::from(region), client: Arc::default() }
    }

    /// The region.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    pub(crate) async fn client(&self) -> &Client {
        self.client.get_or_init(async || Client::from_conf(self.config().await)).await
    }

    /// Retries without the adaptive mode: after one answer `Throttling` that lets a call wait for longer than it may take.
    async fn config(&self) -> Config {
        let shared = self.aws.config(Some(&self.region)).await;
        let attempts = shared.retry_config().map_or(ATTEMPTS, RetryConfig::max_attempts);
        let retry = RetryConfig::standard().with_max_attempts(attempts);
        aws_sdk_rds::config::Builder::from(&shared).retry_config(retry).build()
    }

    /// A cluster; none: there is none of this name. `rds:DescribeDBClusters`.
    ///
    /// # Errors
    /// RDS refused or did not answer.
    pub async fn cluster(&self, identifier: &str) -> Result<Option<Cluster>, RdsFault> {
        let asked = self.client().await.describe_db_clusters().db_cluster_identifier(identifier).send().await;
        match asked.map_err(|error| RdsFault::new("DescribeDBClusters", &error)) {
            Ok(answer) => Ok(answer.db_clusters().first().map(Cluster::from)),
            Err(fault) if fault.is("DBClusterNotFoundFault") => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// The instances of a cluster. `rds:DescribeDBInstances`.
    ///
    /// # Errors
    /// RDS refused or did not answer.
    pub async fn instances(&self, cluster: &str) -> Result<Vec<Instance>, RdsFault> {
        let filter = filter("db-cluster-id", &[cluster]);
        // A cluster has 16 at most, and a page 100.
        let asked = self.client().await.describe_db_instances().filters(filter).send().await;
        let answer = asked.map_err(|error| RdsFault::new("DescribeDBInstances", &error))?;
        Ok(answer.db_instances().iter().map(Instance::from).collect())
    }

    /// What a cluster's parameter group says. `rds:DescribeDBClusterParameters`.
    ///
    /// # Errors
    /// RDS refused or did not answer.
    pub async fn parameters(&self, group: &str) -> Result<Parameters, RdsFault> {
        let request = self.client().await.describe_db_cluster_parameters().db_cluster_parameter_group_name(group);
        let asked = request.filters(filter("parameter-name", &[FORCE_SSL])).send().await;
        let answer = asked.map_err(|error| RdsFault::new("DescribeDBClusterParameters", &error))?;
        let mut found = answer.parameters().iter().filter(|one| one.parameter_name() == Some(FORCE_SSL));
        let force_ssl = found.find_map(|one| one.parameter_value());
        Ok(Parameters { force_ssl: force_ssl.map(|value| value == "1") })
    }

    /// What RDS is to do to a cluster. `rds:DescribePendingMaintenanceActions`.
    ///
    /// # Errors
    /// RDS refused or did not answer.
    pub async fn maintenance(&self, arn: &str) -> Result<Vec<Maintenance>, RdsFault> {
        let asked = self.client().await.describe_pending_maintenance_actions().resource_identifier(arn).send().await;
        let answer = asked.map_err(|error| RdsFault::new("DescribePendingMaintenanceActions", &error))?;
        let of_cluster = answer.pending_maintenance_actions().iter();
        Ok(of_cluster.flat_map(|one| one.pending_maintenance_action_details()).map(Maintenance::from).collect())
    }
}

pub(crate) fn filter(name: &str, values: &[&str]) -> Filter {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Filter::builder().name(name).set_values(Some(values)).build()
}
