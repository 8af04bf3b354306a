# The one entry point. The pipeline runs these recipes, and the `cargo test` of the README. `just` alone lists them.

set shell := ["bash", "-euo", "pipefail", "-c"]

_list:
    @just --list --unsorted

# Everything a change must pass before review.
check: fmt-check clippy doc tidy rules deny

# All tests that need cargo and a C compiler alone.
test:
    cargo test --locked --workspace

# Format the sources.
fmt:
    cargo fmt --all

fmt-check:
    cargo fmt --all --check

# Lints, also of the test programs that a plain `cargo test` leaves out.
clippy:
    cargo clippy --locked --workspace --all-targets -- -D warnings
    cargo clippy --locked --test real --test kill --test browsers --test load --test faults -- -D warnings

# Documentation of all items; broken links are errors.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items

# The rules of the repository: directions, sizes, dependencies, links, names of metrics, runbooks.
tidy:
    cargo test --locked --test main tidy

# The configurations of Prometheus and Alertmanager, the rules and their tests.
rules:
    promtool check config deploy/prometheus/scrape.yml
    promtool check rules deploy/prometheus/*.rules.yml
    promtool test rules deploy/prometheus/*.rules.test.yml
    amtool check-config deploy/alertmanager/alertmanager.yml

# Banned crates, licences and sources of the dependencies. Needs cargo-deny.
deny:
    cargo deny --locked check bans licenses sources

# Known vulnerabilities of the dependencies. Needs cargo-deny and its database on the network.
advisories:
    cargo deny --locked check advisories

# The program with nginx, ffmpeg, Prometheus and Alertmanager, which must be installed.
real *ARGS:
    cargo test --locked --test real -- {{ARGS}}

# kill -9 under load, disks that are full or read-only, a collector that is away.
kill *ARGS:
    cargo test --locked --test kill -- {{ARGS}}

# Real players in Chromium. Needs nginx, ffmpeg, Chromium and npm.
browsers *ARGS:
    npm ci --prefix tests/browsers
    cargo test --locked --test browsers -- --nocapture {{ARGS}}

# Whether every benchmark runs: one pass each, not timed.
bench-test:
    cargo test --locked --workspace --bench '*' -- --test

# Benchmarks, with what is shipped.
bench *ARGS:
    cargo bench {{ARGS}}

# Whether every fuzz target compiles.
fuzz-build:
    cargo build --locked --manifest-path fuzz/Cargo.toml --bins

# One fuzz target for some seconds. Needs nightly and cargo-fuzz.
fuzz TARGET="srs" SECONDS="60":
    cargo +nightly fuzz run {{TARGET}} -- -max_total_time={{SECONDS}}

# Write the generated references and the code map anew.
docs:
    UPDATE=1 cargo test --test main generated

# A class on loopback, with a fault after a while.
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# Run what is too long for the pipeline and write its output into docs/performance.md: all of it, or the named parts.
measure *NAMES:
    .ci/measure {{NAMES}}

# What is shipped: optimised over all crates, without symbols.
dist:
    cargo build --locked --profile dist
