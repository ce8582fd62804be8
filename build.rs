//! Tells cargo what the program is made of besides its Rust source.

fn main() {
    // `sqlx::migrate!` reads this folder, and cargo would not notice a new file in it.
    println!("cargo:rerun-if-changed=migrations");
}
