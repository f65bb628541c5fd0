//! The doorway.

fn main() -> std::process::ExitCode {
    clawsnap::cli::main()
}
