"""The end of a check in few lines: what passed, what was fast. Reads results.jsonl."""

import json
import sys


def main():
    lines = []
    for line in open(sys.argv[1], encoding="utf-8", errors="replace"):
        try:
            lines.append(json.loads(line))
        except ValueError:
            print("?", line.strip()[:200])
    for found in lines:
        stage = found.get("stage")
        if "error" in found:
            print(f"{stage} {found.get('shape', '')} {found.get('who', '')}: {found['error'][:300]}")
        elif stage == "engine-parity":
            print(f"parity {found['shape']}: logits {found['logits_max_rel']:.1e}, company {found['company_same_bits']}, "
                  f"drawn {found['drawn_equal_share']:.3f}, load {found['load_seconds']:.0f} s, upload "
                  f"{found['upload_seconds']:.0f} s, pass {found['pass']}")
        elif stage == "engine-proof":
            print(f"proof before {found['shape']}: {found['seconds']:.2f} s, {found['refused'] or 'passed'}")
        elif stage == "engine-codec":
            card, cpu = found["frame_on_card_hop_1"], found["frame_on_processor_hop_2"]
            print(f"codec {found['shape']}: {found['apart_of_largest']:.1e} apart, frame on the card {card['p50_ms']:.3f} ms "
                  f"(p99 {card['p99_ms']:.3f}), on the processor {cpu['p50_ms']:.3f} ms, pass {found['pass']}")
        elif stage == "engine-stream":
            frames = found["frames"]
            print(f"stream {found['shape']}, codec on {found['codec']}: {found['rtf']:.2f}x, frame {frames['p50_ms']:.3f} ms, "
                  f"p99 {frames['p99_ms']:.3f}, max {frames['max_ms']:.2f}, {found['bandwidth_share'] * 100:.1f} % of "
                  f"{found['bandwidth'] / 1e12:.2f} TB/s, {found['rollovers']} roll-overs, rms {found['rms']:.3g}")
        elif stage == "bench" and found.get("who") == "tiller":
            print(f"bench {found['shape']} kv {found['kv']} rows {found['rows']} overlap {found['overlap']} prefetch "
                  f"{found['prefetch']} early {found['early']}: {found['p50_ms']:.3f} ms, p99 {found['p99_ms']:.3f}, "
                  f"{found['rtf']:.1f}x, {found['bandwidth_share'] * 100:.1f} %")
        elif stage == "bench" and found.get("who") == "card":
            print(f"card: {found['read_bytes_per_s'] / 1e12:.2f} TB/s read, {found['copy_bytes_per_s'] / 1e12:.2f} copied")
        elif stage == "bench":
            print(f"bench {found['shape']} kv {found['kv']} {found['who']}: {found['p50_ms']:.2f} ms, {found['rtf']:.2f}x")
        elif stage == "parity":
            print(f"transformers {found['shape']}: {found['logits_max_rel']:.1e}, pass {found['pass']}")


if __name__ == "__main__":
    main()
