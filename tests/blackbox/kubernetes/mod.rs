//! Promises to users of Kubernetes, kept by the running binary beside a real API server.

mod admission;
mod charts;
mod claims;
mod conversion;
mod leak;
mod rbac;
mod upgrade;
