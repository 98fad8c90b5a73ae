# Sourced by scripts/lint and scripts/test, after summary.bash: the lint steps, counted.
: "${work:?}"

# Tests that need programs or a guest: cargo leaves them out unless they are named.
by_name=(--test e2e --test ublk_control --test guest --test guest_harness --test guest_units
    --test guest_cuts)

lint_steps() {
    check "format" cargo fmt --all --check
    check "format of the fuzz targets" cargo fmt --manifest-path fuzz/Cargo.toml --check
    check "clippy" cargo clippy --workspace --all-targets --all-features --quiet -- -D warnings
    check "clippy of tests run by name" \
        cargo clippy --workspace "${by_name[@]}" --quiet -- -D warnings
    check "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
    if cargo deny --version > /dev/null 2>&1; then
        # What other systems would build counts too, and a build here has not fetched it.
        cargo fetch --quiet --locked || true
        check "licences and sources" cargo deny --offline check bans licenses sources
        deny_advisories
    else
        skip "licences and sources" "cargo-deny is not installed; scripts/setup installs it"
        skip "advisories" "cargo-deny is not installed; scripts/setup installs it"
    fi
    if command -v shellcheck > /dev/null; then
        check "shell scripts" shellcheck -x -P scripts scripts/* .ci/run tests/src/guest/inside/*.sh
    else
        skip "shell scripts" "shellcheck is not installed"
    fi
}

# The advisory database is fetched; without a network this cannot run.
deny_advisories() {
    local log=$work/advisories-fetch.log
    if timeout 60 cargo deny fetch db > "$log" 2>&1; then
        check "advisories" cargo deny --offline check advisories
    else
        skip "advisories" "the advisory database could not be fetched"
    fi
}
