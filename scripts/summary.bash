# Sourced by scripts/test and scripts/lint: counting what ran.
#
# A step ends as one line of $SUMMARY: step, passed, failed, skipped, seconds.
# What failed and what could not run, and why, is kept beside it. Of a long output often only
# the last 25 lines are seen: so it ends with why tests failed, then the counts.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$root/target/test
SUMMARY=$work/summary.tsv
FAILURES=$work/failures.txt
SKIPS=$work/skips.txt
REASONS=$work/reasons.txt

summary_begin() {
    rm -rf "$work"
    mkdir -p "$work"
    : > "$SUMMARY"
    : > "$FAILURES"
    : > "$SKIPS"
    : > "$REASONS"
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
        reasons "$log" >> "$REASONS"
    elif ((status)); then
        failed=1 # it did not compile, or a test program died
        echo "$step: cargo test ended with $status; see $log" >> "$FAILURES"
    fi
    ((failed == 0)) || tail -n 60 "$log"
    record "$step" "$passed" "$failed" $((ignored + noted)) $((SECONDS - begin))
}

# reasons LOG: why each test of a log failed: its name and where it panicked, then,
# indented, what it said from there on.
reasons() {
    awk '
        function block_ends(  i) {
            if (name == "") return
            print name
            for (i = 1; i <= lines; i++) print "    " line[i]
            name = ""
        }
        # Before what they said, and before the list of their names.
        /^failures:$/ { block_ends(); inside = !inside; next }
        !inside { next }
        /^---- .* stdout ----$/ { block_ends(); name = $2; lines = panics = 0; next }
        /^thread .* panicked at / && !panics++ {
            name = name ", " substr($0, index($0, "panicked at "))
            lines = 0
            next
        }
        /^$/ || /^note: .*RUST_BACKTRACE/ || /^stack backtrace:$/ { next }
        /^ *[0-9]+: / || /^ +at / { next }
        { line[++lines] = length($0) > 300 ? substr($0, 1, 297) "..." : $0 }
        END { block_ends() }' "$1"
}

# Prints the reasons of up to five tests in about 20 lines: of each what it said first,
# and last, where worlds name the command that lives them again.
print_reasons() {
    awk -v tests="$(grep -c '^[^ ]' "$REASONS")" '
        function block_ends(  i) {
            for (i = 1; i <= lines; i++)
                if (lines <= most || i <= head || i > lines - (most - head - 1)) print line[i]
                else if (i == head + 1) print "    [...]"
            lines = 0
        }
        BEGIN {
            most = int(20 / (tests < 5 ? tests : 5)) - 1
            if (most > 12) most = 12
            head = int(most / 2)
        }
        /^[^ ]/ { block_ends(); if (++shown > 5) exit; print; next }
        { line[++lines] = $0 }
        END {
            block_ends()
            if (tests > 5) printf "and %d more tests\n", tests - 5
        }' "$REASONS"
}

# Tests which find at run time that they cannot run pass and leave a note; sets
# `noted` to how many did since the last call.
skipped_at_run_time() {
    local notes=${CSNAP_SKIPPED:-$root/target/e2e/skipped.tsv}
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
    if [[ -s $REASONS ]]; then
        printf '\nwhy tests failed:\n'
        print_reasons
    fi
    echo
    # Often the last lines are all that is seen of a run.
    awk -F '\t' -v all="$SECONDS" '
        $5 >= 60 { printf "%s %d, ", $1, $5 }
        END { printf "in all %d seconds\n", all }' "$SUMMARY"
    awk -F '\t' '
        { p += $2; f += $3; s += $4 }
        END { printf "%d passed, %d failed, %d skipped\n", p, f, s; exit f > 0 }' "$SUMMARY"
}
