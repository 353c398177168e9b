//! What a write must be before it is taken.

use std::borrow::Cow;

use serde::Deserialize;

use super::operation::{Action, Write};

/// A body is spliced into a request with others, so it must be whole; and it names its document once more.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(write: &Write) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        id: Option<Cow<'a, str>>,
    }
    let id = &*write.key.id;
    if id.is_empty() || id.contains(['/', '\\', '?', '#']) {
        return Err(format!("the id {id:?} is empty or has one of / \\ ? #"));
    }
    let Some(body) = write.action.body() else {
        return Ok(());
    };
    let named: Named<'_> = serde_json::from_slice(body)
        .map_err(|error| format!("its body is no JSON object, see byte {}", error.column()))?;
    match (&write.action, named.id) {
        (Action::Patch { .. }, _) => Ok(()),
        (_, Some(named)) if named == id => Ok(()),
        (_, Some(named)) => Err(format!("its body has the id {named:?}")),
        (_, None) => Err("its body has no id".to_owned()),
    }
}
