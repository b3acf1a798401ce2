//! Reads what a provider says of somebody.

use serde_json::{Map, Value};

/// Claims of an ID token or of the userinfo endpoint.
pub(super) type Claims = Map<String, Value>;

/// A claim by its name, which may be an address (`https://example.com/groups`), or by the path to it
/// (`realm_access.roles`).
pub(super) fn find<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    let found = claims.get(name).or_else(|| {
        let (first, rest) = name.split_once('.')?;
        find(claims.get(first)?.as_object()?, rest)
    });
    found.filter(|value| !value.is_null())
}

/// Names of groups: a list of texts, one text, or an object whose keys they are.
pub(super) fn groups(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::Object(object) => object.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

/// What people call somebody: the claim that is asked for, or what providers have in its place.
pub(super) fn name(claims: &Claims, wanted: &str, subject: &str) -> String {
    let names = [wanted, "name", "preferred_username", "email"];
    let texts = names.iter().filter_map(|name| find(claims, name)?.as_str());
    let mut clean = texts.map(|text| text.chars().filter(|c| !c.is_control()).take(200).collect::<String>());
    clean.find(|text| !text.trim().is_empty()).unwrap_or_else(|| subject.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims(value: Value) -> Claims {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_claim_is_found_by_its_name_or_by_the_path_to_it() {
        let claims = claims(json!({
            "groups": ["a"],
            "https://example.com/groups": ["b"],
            "realm_access": {"roles": ["c"], "deep": {"er": ["d"]}},
            "flat.name": ["e"],
            "none": null,
        }));
        for (name, expected) in [
            ("groups", Some(json!(["a"]))),
            ("https://example.com/groups", Some(json!(["b"]))),
            ("realm_access.roles", Some(json!(["c"]))),
            ("realm_access.deep.er", Some(json!(["d"]))),
            ("flat.name", Some(json!(["e"]))),
            ("none", None),
            ("groups.a", None),
            ("realm_access.other", None),
        ] {
            assert_eq!(find(&claims, name), expected.as_ref(), "{name}");
        }
    }

    #[test]
    fn groups_come_as_a_list_as_one_text_or_as_keys() {
        assert_eq!(groups(&json!(["a", 7, "b"])), ["a", "b"]);
        assert_eq!(groups(&json!("a b")), ["a b"]);
        assert_eq!(groups(&json!({"admin": {"1": "x"}})), ["admin"]);
        assert!(groups(&json!(true)).is_empty());
    }

    #[test]
    fn somebody_without_the_wanted_name_is_called_by_another_one() {
        let told = |value| name(&claims(value), "nickname", "sub-1");
        assert_eq!(told(json!({"nickname": "Ada", "name": "Ada L."})), "Ada");
        assert_eq!(told(json!({"nickname": " ", "preferred_username": "ada\n"})), "ada");
        assert_eq!(told(json!({"name": 7})), "sub-1");
    }
}
