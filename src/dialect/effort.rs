//! From a budget of thinking tokens to an effort, which is what the backend knows.

/// The first row whose bound is not exceeded.
const BUDGETS: [(u64, &str); 3] = [(4_096, "low"), (16_384, "medium"), (32_768, "high")];

/// What a larger budget means.
const LARGEST: &str = "xhigh";

/// The effort that a budget stands for.
pub(in crate::dialect) fn of_budget(budget: u64) -> &'static str {
    BUDGETS.iter().find(|(bound, _)| budget <= *bound).map_or(LARGEST, |(_, effort)| effort)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_a_budget_means() {
        let page = include_str!("../../docs/compatibility-messages.md");
        for (bound, effort) in BUDGETS {
            assert!(page.contains(&format!("| {bound} | {effort} |")), "{bound}");
        }
        assert!(page.contains(&format!("| more | {LARGEST} |")));
    }
}
