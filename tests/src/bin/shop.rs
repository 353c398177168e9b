//! The test job as a program of its own, with the command line that every job has.
//!
//! The environment variable `SHOP_FAILPOINT` names a point at which it aborts, for example `seal-put:before:3`. With
//! `SHOP_CODE=ledger` it is the job of [`tidefeed_tests::ledger`], with `SHOP_CODE=expiring` that of [`tidefeed_tests::expiring`], and
//! with `SHOP_CODE=billed` that of [`tidefeed_tests::billed`], and with `SHOP_CODE=next` a newer version of itself. With
//! `SHOP_CODE=held` it is that of [`tidefeed_tests::held`], which stands still while the file exists that `SHOP_HELD_BY` names.

use std::process::ExitCode;

use tidefeed::failpoint::Failpoints;

fn main() -> ExitCode {
    let failpoints = match std::env::var("SHOP_FAILPOINT") {
        Ok(point) => Failpoints::aborting(point.parse().expect("a failpoint")),
        Err(_) => Failpoints::default(),
    };
    match std::env::var("SHOP_CODE").as_deref() {
        Ok("ledger") => tidefeed::main_failing_at("shop", failpoints, tidefeed_tests::ledger),
        Ok("held") => {
            let file = std::env::var_os("SHOP_HELD_BY").expect("the name of a file");
            let file = std::path::PathBuf::from(file);
            tidefeed::main_failing_at("shop", failpoints, move |flow| {
                tidefeed_tests::held(flow, &file)
            })
        }
        Ok("billed") => tidefeed::main_failing_at("shop", failpoints, tidefeed_tests::billed),
        Ok("next") => tidefeed::main_failing_at("shop", failpoints, tidefeed_tests::next_views),
        Ok("expiring") => tidefeed::main_failing_at("shop", failpoints, tidefeed_tests::expiring),
        _ => tidefeed::main_failing_at("shop", failpoints, tidefeed_tests::views),
    }
}
