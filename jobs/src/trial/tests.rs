use std::hash::Hash;

use serde::Deserialize;
use serde_json::json;
use tidefeed_operators::memory::{MemoryContainer, MemoryOptions};
use timely::dataflow::operators::vec::Map;

use super::*;
use crate::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Place {
    city: String,
}

/// What is read from JSON only, as documents may be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Flattened {
    id: String,
    #[serde(flatten)]
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    City(String),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    City { city: String },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Skipping {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    city: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Forgetting {
    #[serde(skip)]
    city: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Plain {
    City {
        city: String,
        codes: Vec<Option<u8>>,
    },
}

#[derive(Clone, Serialize)]
struct Counted<K> {
    id: K,
    times: isize,
}

fn documents() -> Documents {
    let document = |number: u32| {
        let city = format!("city {}", number % 20);
        let body = json!({"id": number.to_string(), "city": city});
        Bytes::from(body.to_string())
    };
    let bodies = (0..DOCUMENTS as u32).map(document).collect();
    [("places".to_owned(), bodies)].into()
}

fn tried<F>(code: F) -> Result<()>
where
    F: for<'scope> Fn(&mut Flow<'scope>) -> Result<()> + Send + Sync + 'static,
{
    try_exchange(&(Arc::new(code) as Build), documents())
}

/// How often there is each key that is made of a place.
fn counted<K: ExchangeData + Hash>(key: fn(Flattened) -> K) -> Result<()> {
    tried(move |flow| {
        let places = flow.change_feed::<Flattened>("places")?;
        let counts = places.map(key).count();
        flow.upsert("counts", counts.map(|(id, times)| Counted { id, times }))
    })
}

fn refused(tried: Result<()>, says: &str) {
    let error = tried.expect_err(says);
    assert_eq!(error.kind(), ErrorKind::Config);
    let report = error.report();
    assert!(report.contains(says), "{says} is not in: {report}");
    assert!(report.contains("skip_serializing_if"), "{report}");
}

#[test]
fn what_bincode_brings_back_may_be_a_key() {
    counted(|place| place.id).expect("a string");
    counted(|place| (place.place, [1u8; 4])).expect("a struct");
    let plain = |place: Flattened| Plain::City {
        city: place.place.city,
        codes: vec![None, Some(1)],
    };
    counted(plain).expect("an enum");
}

#[test]
fn what_only_json_brings_back_may_not_and_is_named() {
    refused(counted(|place| place), "tests::Flattened");
    let untagged = counted(|place| Untagged::City(place.place.city));
    refused(untagged, "tests::Untagged");
    let tagged = |place: Flattened| Tagged::City {
        city: place.place.city,
    };
    refused(counted(tagged), "tests::Tagged");
}

/// It is noticed by what comes of it: bytes that are read as something else, or rows that differ.
#[test]
fn what_is_left_out_on_the_way_may_not_either() {
    let skipping = |place: Flattened| Skipping {
        note: None,
        city: place.place.city,
    };
    refused(counted(skipping), "cannot travel");
    let forgetting = |place: Flattened| Forgetting {
        city: place.place.city,
    };
    refused(counted(forgetting), "the rows of sink counts");
}

#[test]
fn documents_may_have_any_form_as_long_as_they_are_mapped_first() {
    let streamed = tried(|flow| {
        let changes = flow.change_stream::<Flattened>("places")?;
        let rows = changes.flat_map(|change| change.value);
        flow.write_stream("places", Strategy::Upsert, rows.map(|row| (1, row)))
    });
    streamed.expect("nothing is exchanged");
    let stateful = |whole: bool| {
        tried(move |flow| {
            let places = flow.change_feed::<Flattened>("places")?;
            let by_city = places.map(move |place| {
                let city = place.place.city.clone();
                (city, whole.then_some(place))
            });
            let seen = flow.stateful("seen", by_city, |_, seen: &mut Option<u64>, changes| {
                *seen = Some(changes.len() as u64);
                *seen
            })?;
            let seen = seen.map(|(city, _)| city).count_total();
            flow.upsert("seen", seen.map(|(id, times)| Counted { id, times }))
        })
    };
    stateful(false).expect("cities only");
    refused(stateful(true), "tests::Flattened");
}

/// What goes wrong on one worker too is not about travelling.
#[test]
fn other_failures_are_for_the_run_to_meet() {
    let panics = counted(|place| -> String { panic!("no city is good enough: {place:?}") });
    panics.expect("says nothing");
    let code: Build = Arc::new(|flow: &mut Flow<'_>| {
        let places = flow.change_feed::<Flattened>("places")?;
        let counts = places.count();
        flow.upsert("counts", counts.map(|(id, times)| Counted { id, times }))
    });
    try_exchange(&code, Documents::new()).expect("there is nothing to try");
}

#[tokio::test]
async fn a_few_documents_are_read_and_no_more() {
    let read = async |documents: usize, bytes: usize| {
        let container = MemoryContainer::new(MemoryOptions::default());
        for number in 0..documents {
            container.upsert("[\"p\"]", &number.to_string(), vec![b' '; bytes]);
        }
        first_of(&container).await.expect("it answers").len()
    };
    assert_eq!(read(0, 1).await, 0);
    assert_eq!(read(40, 1).await, 40);
    assert_eq!(read(500, 1).await, DOCUMENTS);
    assert_eq!(read(40, BYTES / 3).await, 3);
}
