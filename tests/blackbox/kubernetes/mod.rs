//! Promises to users of Kubernetes, kept by the running binary beside a real API server.

mod claims;
mod clusters;
mod doors;
mod ends;
mod external;
mod faults;
mod leak;
mod secrets;
