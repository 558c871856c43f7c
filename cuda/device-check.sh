#!/usr/bin/env bash
# Checks and measures the CUDA library where there is a card, but no Rust and no network: parity with transformers and with the
# engine on the processor, the codec against the processor's, the stream through the player with its codec on the card, the bench
# against torch. `cargo xtask cuda-check` makes the folder that it needs; copy that anywhere with Python, torch and transformers.
#
#   device-check.sh FOLDER OUT [STAGE ...]
#
# Each part is a process of its own with a time of its own: one that fails or takes too long does not stop the next, and what it
# said so far is kept. In `all`, parts load and compile side by side and then have the card one after the other. OUT/results.jsonl
# has one JSON object per line, OUT/log.txt what else was said; the end of the output is a summary.
set -u
folder=$(cd "$1" && pwd)
out=$2
shift 2
mkdir -p "$out"
results=$out/results.jsonl
log=$out/log.txt
library=$folder/libtiller_cuda.so
python=${PYTHON:-python3}
# Checkpoints of random weights, 12 GB in all: in memory where there is room.
room=$(df -k --output=avail /dev/shm 2>/dev/null | tail -1)
[ "${room:-0}" -gt 25000000 ] && cache=/dev/shm/tiller-bench || cache=/tmp/tiller-bench
cache=${CACHE:-$cache}
# Seconds that everything together may take, and that parts may take to get ready.
most=${MOST:-225}
ready=${READY:-75}
export TILLER_CUDA_LIBRARY=$library PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-/tmp/tiller-inductor} TORCHINDUCTOR_COMPILE_THREADS=4
parts=$(mktemp -d)
# It may have come packed, where little can be carried.
program=$folder/tiller-cuda-check
if [ ! -e "$program" ]; then
    program=$parts/tiller-cuda-check
    gzip -dc "$folder/tiller-cuda-check.gz" >"$program" && chmod +x "$program"
fi
began=$(date +%s)
declare -A pid

since() { echo $(($(date +%s) - began)); }
left() { echo $((most - $(since))); }

# start NAME COMMAND...: runs until it has prepared everything, then waits for its turn.
start() {
    local name=$1 seconds
    shift
    seconds=$(left)
    echo "== $name: $*" >>"$log"
    timeout --kill-after=3 "$seconds" "$@" --gate "$parts/$name.go" >"$parts/$name.out" 2>"$parts/$name.err" </dev/null &
    pid[$name]=$!
}

# alive NAME
alive() { kill -0 "${pid[$1]}" 2>/dev/null; }

# finish NAME SECONDS: lets it go on, waits for its end, and keeps what it said.
finish() {
    local name=$1 seconds=$2 from code=0
    [ -n "${pid[$name]:-}" ] || return
    from=$(date +%s%N)
    : >"$parts/$name.go"
    while alive "$name" && [ $((($(date +%s%N) - from) / 1000000000)) -lt "$seconds" ] && [ "$(left)" -gt 0 ]; do
        sleep 0.05
    done
    alive "$name" && kill "${pid[$name]}" 2>/dev/null
    wait "${pid[$name]}" || code=$?
    keep "$name" "$code" $((($(date +%s%N) - from) / 1000000))
    pid[$name]=
}

# keep NAME EXIT MILLISECONDS
keep() {
    cat "$parts/$1.out" >>"$results" 2>/dev/null
    { echo "-- $1"; tail -c 6000 "$parts/$1.err"; } >>"$log" 2>/dev/null
    printf '%-18s exit %3d, %6d ms, %3d s since the start\n' "$1" "$2" "$3" "$(since)"
    printf '{"stage": "run", "name": "%s", "exit": %d, "ms": %d, "at": %d}\n' "$1" "$2" "$3" "$(since)" >>"$results"
}

# run NAME SECONDS COMMAND...: one part, at once.
run() {
    local name=$1 seconds=$2 from code
    shift 2
    from=$(date +%s%N)
    echo "== $name: $*" >>"$log"
    timeout --kill-after=3 "$seconds" "$@" >"$parts/$name.out" 2>"$parts/$name.err" </dev/null
    code=$?
    keep "$name" "$code" $((($(date +%s%N) - from) / 1000000))
}

parity() { echo "$python" "$folder/check/parity.py" --library "$library" --shape "$1" --positions "$2"; }
bench() { echo "$python" "$folder/check/bench.py" --library "$library" --shape "$1"; }
# Frames, and frames with the codec on the processor. Few positions are compared with the processor where that is slow.
engine() {
    echo "$program" --cache "$cache" --threads 8 --shape "$1" --frames "$2" --compared-frames "$3" \
        --positions "$4"
}

# Words of a command never have blanks in them, but for the folder's name, which the machine's owner chooses.
IFS=$' \t\n'
for stage in "${@:-all}"; do
    case $stage in
    all)
        nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem --format=csv,noheader >>"$log" 2>&1
        start engine-large $(engine large 1600 0 4)
        start engine-medium $(engine medium 1600 600 6)
        start engine-small $(engine small 2400 1200 24)
        start bench-medium $(bench medium) --peer eager --steps 200 --variants
        start bench-large $(bench large) --peer eager --steps 150 --variants
        start bench-small $(bench small) --peer eager --steps 300 --variants
        # A capture that fails may leave torch in disorder: it has a process of its own.
        start captured-small $(bench small) --peer captured --kv 500 --peers-only
        start captured-medium $(bench medium) --peer captured --kv 500 --peers-only
        start captured-large $(bench large) --peer captured --kv 500 --peers-only
        start compiled-small $(bench small) --peer compiled --kv 500 --peers-only
        start compiled-medium $(bench medium) --peer compiled --kv 500 --peers-only
        start compiled-large $(bench large) --peer compiled --kv 500 --peers-only
        while [ "$(since)" -lt "$ready" ]; do
            waiting=
            for name in "${!pid[@]}"; do
                alive "$name" && [ ! -e "$parts/$name.ready" ] && waiting=$name
            done
            [ -z "$waiting" ] && break
            sleep 0.2
        done
        echo "the first part has its turn after $(since) s"
        # What matters most first, and what is ready before what is not.
        order="engine-small bench-small engine-medium bench-medium engine-large bench-large"
        order="$order captured-small captured-medium captured-large compiled-small compiled-medium compiled-large"
        while [ -n "${order// /}" ] && [ "$(left)" -gt 0 ]; do
            next=
            for name in $order; do
                if [ -e "$parts/$name.ready" ] || ! alive "$name"; then
                    next=$name
                    break
                fi
            done
            [ -z "$next" ] && sleep 0.2 && continue
            finish "$next" 80
            order=" $order "
            order=${order/ $next / }
        done
        for name in $order; do finish "$name" 0; done
        ;;
    quick)
        # Is it right, and how fast is it? Without peers.
        run parity-small 60 $(parity small 160)
        # By itself: whatever gets ready beside a stream slows it down.
        run engine-small 60 $(engine small 2400 0 24)
        for shape in small medium large; do start "bench-$shape" $(bench "$shape") --steps 150 --variants; done
        for shape in small medium large; do finish "bench-$shape" 60; done
        ;;
    parity-*) run "$stage" 60 $(parity "${stage#parity-}" 160) ;;
    bench-*) run "$stage" 90 $(bench "${stage#bench-}") --peer eager --variants ;;
    compiled-*) run "$stage" 150 $(bench "${stage#compiled-}") --peer compiled --kv 500 --peers-only ;;
    engine-*) run "$stage" 150 $(engine "${stage#engine-}" 2400 1200 24) ;;
    sanitizer)
        run sanitizer 120 compute-sanitizer --tool memcheck $(parity tiny 4) --overlap 0
        run racecheck 120 compute-sanitizer --tool racecheck $(parity tiny 4) --overlap 0
        run codec-sanitizer 120 compute-sanitizer --tool memcheck $(engine demo 0 0 2)
        run codec-racecheck 120 compute-sanitizer --tool racecheck $(engine demo 0 0 2)
        ;;
    *)
        echo "no stage $stage" >&2
        exit 2
        ;;
    esac
done
rm -rf "$parts"
"$python" "$folder/check/summary.py" "$results"
exit 0
