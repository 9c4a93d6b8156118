//! Promises to users of Kubernetes, kept by the running binary beside a real API server.

mod admission;
mod charts;
mod claims;
mod clusters;
mod conversion;
mod doors;
mod ends;
mod external;
mod faults;
mod leak;
mod rbac;
mod restores;
mod restores_killed;
mod secrets;
mod topologies;
mod upgrade;
