use tollway::store::{AliasDraft, StoreError};

use crate::database::{Database, NOW};

fn draft(name: &str, target: &str) -> AliasDraft {
    AliasDraft { name: name.to_owned(), target: target.to_owned() }
}

pub(crate) async fn aliases_are_kept_and_changed_by_one_at_a_time(db: Database) {
    let store = db.store().await;
    let aliases = store.aliases();
    let fast = aliases.create(draft("fast", "gpt-5.5:low"), NOW).await.unwrap();
    let claude = aliases.create(draft("claude-*", "gpt-5.5"), NOW).await.unwrap();
    assert_eq!(aliases.list().await.unwrap(), [claude.clone(), fast.clone()]);
    let taken = aliases.create(draft("fast", "x"), NOW).await;
    assert!(matches!(taken, Err(StoreError::Taken { what: "alias", .. })), "{taken:?}");

    aliases.update(fast.id, &draft("fast", "gpt-6"), Some(1)).await.unwrap();
    let outdated = aliases.update(fast.id, &draft("fast", "gpt-7"), Some(1)).await;
    assert!(matches!(outdated, Err(StoreError::Outdated { what: "alias", .. })), "{outdated:?}");
    let renamed = aliases.update(fast.id, &draft("claude-*", "gpt-7"), None).await;
    assert!(matches!(renamed, Err(StoreError::Taken { .. })), "{renamed:?}");
    let read = aliases.find("fast").await.unwrap();
    assert_eq!((read.target.as_str(), read.version), ("gpt-6", 2));

    let outdated = aliases.remove(fast.id, Some(1)).await;
    assert!(matches!(outdated, Err(StoreError::Outdated { .. })), "{outdated:?}");
    assert!(aliases.remove(fast.id, Some(2)).await.unwrap());
    assert_eq!(aliases.list().await.unwrap(), [claude]);
}
