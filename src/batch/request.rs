//! What a client hands in: a batch's requests, and which page of its batches it wants. Pure.

use crate::dialect::{Problem, ProblemKind};
use crate::store::PageSide;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::HashSet;

/// The most requests in one batch, as at Anthropic.
const MOST_REQUESTS: usize = 100_000;
/// The longest name of a request, as at Anthropic.
const LONGEST_NAME: usize = 64;
/// The most batches on a page.
const LONGEST_PAGE: u32 = 1000;
const DEFAULT_PAGE: u32 = 20;

/// A request as it stands in a batch.
#[derive(Deserialize)]
pub(super) struct Asked<'a> {
    /// Its name within the batch.
    pub custom_id: String,
    /// The body of a `POST /v1/messages`.
    #[serde(borrow)]
    pub params: &'a RawValue,
}

/// The requests of a batch. What each asks is judged when its turn comes; here only what would make
/// the batch as a whole useless is refused.
pub(super) fn requests(body: &[u8]) -> Result<Vec<&RawValue>, Problem> {
    #[derive(Deserialize)]
    struct Batch<'a> {
        #[serde(borrow, default)]
        requests: Option<Vec<&'a RawValue>>,
    }
    let batch: Batch<'_> = serde_json::from_slice(body)
        .map_err(|error| invalid(format!("The request body is not a batch of requests: {error}")))?;
    let requests = batch.requests.ok_or_else(|| invalid("requests: Field required"))?;
    if requests.is_empty() || requests.len() > MOST_REQUESTS {
        return Err(invalid(format!("requests: List should have from 1 to {MOST_REQUESTS} items")));
    }
    let mut names = HashSet::with_capacity(requests.len());
    for (number, request) in requests.iter().enumerate() {
        let asked: Asked<'_> = serde_json::from_str(request.get())
            .map_err(|error| invalid(format!("requests.{number}: {}", without_place(&error))))?;
        if !is_name(&asked.custom_id) {
            let rule = "custom_id: String should have 1 to 64 characters of a-z, A-Z, 0-9, - and _";
            return Err(invalid(format!("requests.{number}.{rule}")));
        }
        if !asked.params.get().starts_with('{') {
            return Err(invalid(format!("requests.{number}.params: Input should be an object")));
        }
        if !names.insert(asked.custom_id) {
            return Err(invalid(format!("requests.{number}.custom_id: custom_ids must be unique within a batch")));
        }
    }
    Ok(requests)
}

/// Where it stands in the request is of no use: what it stands in is an item alone.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

fn is_name(name: &str) -> bool {
    let is_letter = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_');
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_letter)
}

fn invalid(message: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::InvalidRequest, message)
}

/// A page of batches that a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    after: Option<String>,
    before: Option<String>,
    pub(super) limit: u32,
}

impl Page {
    /// Reads the names and values of a query.
    pub fn of<K: AsRef<str>, V: AsRef<str>>(query: impl Iterator<Item = (K, V)>) -> Result<Self, Problem> {
        let mut page = Self { after: None, before: None, limit: DEFAULT_PAGE };
        for (name, value) in query {
            match name.as_ref() {
                "after_id" => page.after = Some(value.as_ref().to_owned()),
                "before_id" => page.before = Some(value.as_ref().to_owned()),
                "limit" => {
                    let limit = value.as_ref().parse().ok().filter(|limit| (1..=LONGEST_PAGE).contains(limit));
                    page.limit = limit.ok_or_else(|| invalid("limit: Input should be a number from 1 to 1000"))?;
                }
                _ => {}
            }
        }
        if page.after.is_some() && page.before.is_some() {
            return Err(invalid("after_id and before_id cannot be used together"));
        }
        Ok(page)
    }

    pub(super) fn side(&self) -> PageSide<'_> {
        match (&self.after, &self.before) {
            (Some(id), _) => PageSide::After(id),
            (None, Some(id)) => PageSide::Before(id),
            (None, None) => PageSide::Newest,
        }
    }

    /// Whether it is read towards newer batches.
    pub(super) fn is_backwards(&self) -> bool {
        self.before.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn refusal(body: &Value) -> String {
        requests(body.to_string().as_bytes()).expect_err("refused").message
    }

    #[test]
    fn a_batch_that_makes_no_sense_is_refused_with_the_place() {
        let good = json!({"custom_id": "a", "params": {}});
        assert!(refusal(&json!({})).contains("requests: Field required"));
        assert!(refusal(&json!({"requests": []})).contains("from 1 to"));
        assert!(
            refusal(&json!({"requests": [good, good]})).contains("requests.1.custom_id: custom_ids must be unique")
        );
        for name in ["", "a b", "ä", &"x".repeat(65)] {
            let bad = json!({"custom_id": name, "params": {}});
            assert!(refusal(&json!({"requests": [good, bad]})).starts_with("requests.1.custom_id: "), "{name}");
        }
        for request in
            [json!({"custom_id": "b"}), json!({"params": {}}), json!(1), json!({"custom_id": "b", "params": 1})]
        {
            assert!(refusal(&json!({"requests": [good, request]})).starts_with("requests.1"), "{request}");
        }
        assert!(requests(json!({"requests": [good]}).to_string().as_bytes()).is_ok());
        assert!(requests(b"{").is_err() && requests(b"[]").is_err());
    }

    #[test]
    fn a_page_is_read_from_its_query() {
        let page = Page::of([("limit", "3"), ("after_id", "x"), ("beta", "true")].into_iter()).expect("a page");
        assert_eq!((page.limit, page.side()), (3, PageSide::After("x")));
        for query in [vec![("limit", "0")], vec![("limit", "x")], vec![("after_id", "a"), ("before_id", "b")]] {
            assert!(Page::of(query.into_iter()).is_err());
        }
    }
}
