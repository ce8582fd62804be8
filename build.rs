//! Declares the inputs of the build besides Rust source.

fn main() {
    // `sqlx::migrate!` embeds this folder; without this line cargo would miss a new file in it.
    println!("cargo:rerun-if-changed=migrations");
}
