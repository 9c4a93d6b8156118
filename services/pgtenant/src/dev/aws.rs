//! moto in the place of Amazon, so that Secrets Manager can be tried without an account.

use pgtenant_aws::StandIn;
use pgtenant_lab::{Moto, MotoProgram};

use super::Result;
use super::folder::Folder;

const REGION: &str = "eu-west-1";
/// moto takes any.
const KEY: &str = "dev";

/// Starts it; it begins empty each time, and the control plane writes again what is missing.
pub(super) async fn start(folder: &Folder, mut progress: impl FnMut(&str) + Send) -> Result<(Moto, StandIn)> {
    let program = MotoProgram::locate_or_install(&mut progress).await?;
    let moto = Moto::start(&folder.root().join("aws"), program).await?;
    progress(&format!("moto in the place of Amazon: {}", moto.url()));
    let stand_in = StandIn {
        url: moto.url().to_owned(),
        region: REGION.to_owned(),
        access_key_id: KEY.to_owned(),
        secret_access_key: KEY.to_owned(),
    };
    Ok((moto, stand_in))
}

/// The variables with which the AWS command line and SDKs reach it.
pub(super) fn variables(stand_in: &StandIn) -> [(&'static str, String); 4] {
    let StandIn { url, region, access_key_id, secret_access_key } = stand_in.clone();
    [
        ("AWS_ENDPOINT_URL", url),
        ("AWS_REGION", region),
        ("AWS_ACCESS_KEY_ID", access_key_id),
        ("AWS_SECRET_ACCESS_KEY", secret_access_key),
    ]
}
