# Sourced by scripts/test and scripts/lint: counting what ran.
#
# A step ends as one line of $SUMMARY: step, passed, failed, skipped, seconds.
# What failed and what could not run, and why, is kept beside it.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$root/target/test
SUMMARY=$work/summary.tsv
FAILURES=$work/failures.txt
SKIPS=$work/skips.txt

summary_begin() {
    rm -rf "$work"
    mkdir -p "$work"
    : > "$SUMMARY"
    : > "$FAILURES"
    : > "$SKIPS"
}

# record STEP PASSED FAILED SKIPPED SECONDS
record() {
    printf '%s\t%s\t%s\t%s\t%s\n' "$@" >> "$SUMMARY"
    printf '    %s passed, %s failed, %s skipped (%s s)\n' "$2" "$3" "$4" "$5"
}

# check STEP COMMAND...: a step that passes or fails as a whole.
check() {
    local step=$1 log begin=$SECONDS
    shift
    log=$work/${step// /-}.log
    echo "==> $step"
    if "$@" > "$log" 2>&1; then
        record "$step" 1 0 0 $((SECONDS - begin))
    else
        tail -n 40 "$log"
        echo "$step: \`$*\`; see $log" >> "$FAILURES"
        record "$step" 0 1 0 $((SECONDS - begin))
    fi
}

# skip STEP REASON
skip() {
    echo "==> $1"
    echo "$1: $2" >> "$SKIPS"
    record "$1" 0 0 1 0
}

# cargo_tests STEP CARGO-TEST-ARGUMENTS...: counts every single test.
cargo_tests() {
    local step=$1 log begin=$SECONDS status=0 passed failed ignored
    shift
    log=$work/${step// /-}.log
    echo "==> $step"
    cargo test --no-fail-fast "$@" > "$log" 2>&1 || status=$?
    read -r passed failed ignored < <(awk '
        /^test result:/ { p += $4; f += $6; i += $8 }
        END { print p + 0, f + 0, i + 0 }' "$log")
    grep -E '^test .* \.\.\. ignored' "$log" | sed "s/^test /$step: /" >> "$SKIPS" || true
    skipped_at_run_time "$step"
    passed=$((passed - noted))
    if ((failed)); then
        grep -E '^test .* \.\.\. FAILED' "$log" | sed "s|^test |$step: |; s|\$|; see $log|" >> "$FAILURES"
    elif ((status)); then
        failed=1 # it did not compile, or a test program died
        echo "$step: cargo test ended with $status; see $log" >> "$FAILURES"
    fi
    ((failed == 0)) || tail -n 60 "$log"
    record "$step" "$passed" "$failed" $((ignored + noted)) $((SECONDS - begin))
}

# Tests which find at run time that they cannot run pass and leave a note; sets
# `noted` to how many did since the last call.
skipped_at_run_time() {
    local notes=$root/target/e2e/skipped.tsv
    noted=0
    if [[ -s $notes ]]; then
        noted=$(wc -l < "$notes")
        awk -F '\t' -v step="$1" '{ print step ": " $1 ": " $2 }' "$notes" >> "$SKIPS"
        rm -f "$notes"
    fi
}

# Prints the table, and as the last line the counts. Fails if anything failed.
summary_end() {
    echo
    awk -F '\t' '
        BEGIN { printf "%-34s %8s %8s %8s %8s\n", "step", "passed", "failed", "skipped", "seconds" }
        { printf "%-34s %8d %8d %8d %8d\n", $1, $2, $3, $4, $5 }' "$SUMMARY"
    if [[ -s $SKIPS ]]; then
        printf '\ncould not run, and why:\n'
        sed 's/^/  /' "$SKIPS"
    fi
    if [[ -s $FAILURES ]]; then
        printf '\nfailed:\n'
        sed 's/^/  /' "$FAILURES"
    fi
    echo
    awk -F '\t' '
        { p += $2; f += $3; s += $4 }
        END { printf "%d passed, %d failed, %d skipped\n", p, f, s; exit f > 0 }' "$SUMMARY"
}
