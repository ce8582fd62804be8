//! Tests of the worker, over the protocol and in `/proc`: attacks from inside its sessions, limits,
//! and what is left after its end.
//!
//! Most tests run twice: with a worker of root, and with a worker of an ordinary user.

/// Makes two tests of each function: with a worker of root, and of an ordinary user.
macro_rules! for_both {
    ($($check:ident),* $(,)?) => { $(
        mod $check {
            use crate::testbed::Testbed;

            #[test]
            fn as_root() {
                if let Some(testbed) = Testbed::run_by_root() {
                    super::$check(testbed);
                }
            }

            #[test]
            fn as_an_ordinary_user() {
                super::$check(Testbed::run_by_user());
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
