#!/usr/bin/env bash
# Checks and measures the CUDA library where there is a card, but no Rust and no network: parity with transformers and with the
# engine on the processor, the bench against torch, the stream through the player. `cargo xtask cuda-check` makes the folder
# that it needs; copy that anywhere with Python, torch and transformers.
#
#   device-check.sh FOLDER OUT [STAGE ...]
#
# Each stage is a process of its own: one that fails or takes too long does not stop the next. OUT/results.jsonl has one JSON
# object per line, OUT/log.txt what else was said.
set -u
folder=$(cd "$1" && pwd)
out=$2
shift 2
mkdir -p "$out"
results=$out/results.jsonl
log=$out/log.txt
library=$folder/libtiller_cuda.so
python=${PYTHON:-python3}
cache=${CACHE:-/tmp/tiller-bench}
export TILLER_CUDA_LIBRARY=$library PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
began=$(date +%s)

# run NAME SECONDS COMMAND...
run() {
    local name=$1 most=$2 from code
    shift 2
    from=$(date +%s%N)
    echo "== $name: $*" >>"$log"
    timeout --kill-after=5 "$most" "$@" >>"$results" 2>>"$log"
    code=$?
    printf '%-18s exit %3d, %6d ms, %3d s since the start\n' "$name" "$code" \
        "$((($(date +%s%N) - from) / 1000000))" "$(($(date +%s) - began))"
    printf '{"stage": "run", "name": "%s", "exit": %d}\n' "$name" "$code" >>"$results"
}

parity() { run "parity-$1" "$3" "$python" "$folder/check/parity.py" --library "$library" --shape "$1" --positions "$2"; }
bench() {
    local shape=$1 most=$2
    shift 2
    run "bench-$shape" "$most" "$python" "$folder/check/bench.py" --library "$library" --shape "$shape" "$@"
}
engine() { run "engine-$1" "$2" "$folder/tiller-cuda-check" --shape "$1" --cache "$cache" --frames "$3" --threads 4; }

for stage in "${@:-all}"; do
    case $stage in
    all)
        nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem --format=csv,noheader >>"$log" 2>&1
        parity demo 60 40
        parity small 1400 60
        bench large 60 --peer eager --variants
        bench small 40 --peer eager --variants
        bench medium 50 --peer eager
        parity large 160 60
        engine demo 30 1600
        engine small 60 2400
        parity stereo-small 150 40
        parity medium 150 50
        bench small 90 --peer compiled --kv 500
        ;;
    parity-*) parity "${stage#parity-}" 160 60 ;;
    bench-*) bench "${stage#bench-}" 90 --peer eager --variants ;;
    compiled-*) bench "${stage#compiled-}" 120 --peer compiled --kv 500 ;;
    engine-*) engine "${stage#engine-}" 60 2400 ;;
    sanitizer)
        run sanitizer 120 compute-sanitizer --tool memcheck "$python" "$folder/check/parity.py" --library "$library" \
            --shape tiny --positions 4 --overlap 0
        run racecheck 120 compute-sanitizer --tool racecheck "$python" "$folder/check/parity.py" --library "$library" \
            --shape tiny --positions 4 --overlap 0
        ;;
    *)
        echo "no stage $stage" >&2
        exit 2
        ;;
    esac
done
exit 0
