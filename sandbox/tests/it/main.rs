//! Attacks on a worker from inside its sessions, its limits, and what it leaves behind: all seen
//! from outside, over the protocol and in `/proc`.
//!
//! Most tests run twice: against a worker that root runs, and against an ordinary user's.

/// Makes tests of functions that take a [`testbed::Stage`], one for each user that may run a worker.
macro_rules! for_both {
    ($($check:ident),* $(,)?) => { $(
        mod $check {
            use crate::testbed::Stage;

            #[test]
            fn as_root() {
                if let Some(stage) = Stage::root() {
                    super::$check(stage);
                }
            }

            #[test]
            fn as_an_ordinary_user() {
                super::$check(Stage::ordinary());
            }
        }
    )* };
}

mod attacks;
mod background;
mod client;
mod forgery;
mod isolation;
mod limits;
mod local_worker;
mod notebook;
mod processes;
mod project_shares;
mod protocol;
mod removed_files;
mod shutdown;
mod soak;
mod testbed;
mod workspace_files;
