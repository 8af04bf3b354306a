# The one front door. The pipeline runs the same recipes. `just` alone lists them.

_list:
    @just --list --unsorted

# All that a change must pass before it is looked at.
check: fmt-check clippy doc tidy rules

# Every test.
test:
    cargo test --workspace

# Formats the sources.
fmt:
    cargo fmt --all

fmt-check:
    cargo fmt --all --check

clippy:
    cargo clippy --workspace --all-targets -- -D warnings

# Documentation of all items, broken links refused.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

# The rules of the repository: sizes, dependencies, links, names of metrics, alerts explained.
tidy:
    cargo test --test main tidy

# The Prometheus configuration, its rules and their tests.
rules:
    promtool check config deploy/prometheus/scrape.yml
    promtool check rules deploy/prometheus/liveqos.rules.yml
    promtool test rules deploy/prometheus/liveqos.rules.test.yml

# The program beside nginx, ffmpeg and Prometheus, which must be installed.
e2e:
    cargo test --test real

# Writes the generated references anew.
docs:
    UPDATE=1 cargo test --test main generated

# A class on loopback, with a fault after a while.
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

bench *ARGS:
    cargo bench {{ARGS}}

# Licences, advisories, banned crates. Needs cargo-deny.
deny:
    cargo deny check

# One fuzz target for some seconds. Needs nightly and cargo-fuzz.
fuzz TARGET="srs" SECONDS="60":
    cargo +nightly fuzz run {{TARGET}} -- -max_total_time={{SECONDS}}
