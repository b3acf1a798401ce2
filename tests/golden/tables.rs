//! The compatibility page says what the code does.

use tollway::dialect::{chat, responses};

#[test]
fn the_compatibility_page_has_a_row_for_each_field_that_is_dropped_or_refused() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/compatibility.md");
    let page = std::fs::read_to_string(path).unwrap();
    let section = |from: &str, to: &str| page.split_once(from).unwrap().1.split_once(to).unwrap().0.to_owned();
    let of_responses = section("\n## OpenAI Responses\n", "\n## ");
    let of_chat = section("\n## OpenAI Chat Completions\n", "\n## ");

    for field in responses::DROPPED {
        assert!(of_responses.contains(&format!("| `{field}` | ignored |")), "{field}");
    }
    for (field, reason) in responses::REFUSED {
        assert!(of_responses.contains(&format!("| `{field}` | refused | {reason} |")), "{field}");
    }
    for (field, reason) in chat::IGNORED {
        assert!(of_chat.contains(&format!("| `{field}` | ignored | {reason} |")), "{field}");
    }
    for (field, _, reason) in chat::REFUSED {
        assert!(of_chat.contains(&format!("| `{field}` | refused | {reason} |")), "{field}");
    }
    // And nothing else.
    let rows = |section: &str, word: &str| section.lines().filter(|line| line.contains(&format!("| {word} |"))).count();
    assert_eq!(rows(&of_responses, "refused"), responses::REFUSED.len());
    assert_eq!(rows(&of_chat, "ignored"), chat::IGNORED.len());
}
