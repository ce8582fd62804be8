//! Declares the inputs of the build besides Rust source.

fn main() {
    // `sqlx::migrate!` embeds this folder; without this line cargo would miss a new file in it.
    println!("cargo:rerun-if-changed=migrations");
    // The same holds for the files of the console, which release builds embed.
    println!("cargo:rerun-if-changed=console");
}
