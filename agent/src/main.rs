//! The `weft` command.

fn main() -> std::process::ExitCode {
    weft_agent::cli::main()
}
