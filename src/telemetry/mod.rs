//! The metric catalogue, traces and logs.
