//! Stand-in.
pub mod error;
/// Stand-in.
pub mod request {
    use crate::dialect::*;
    /// Stand-in.
    pub fn prepare(_: &bytes::Bytes, _: &Context, _: &ModelMap) -> Result<Prepared, Problem> {
        Err(Problem::new(ProblemKind::NotFound, "not here yet"))
    }
}
