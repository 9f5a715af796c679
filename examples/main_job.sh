#!/bin/sh
# The whole path with curl alone: upload, train, watch, compare, put into service, ask, download.
#
#   URL=http://127.0.0.1:8420 KEY=fpk_… sh examples/main_job.sh [DATA.csv] [MODEL.zip]
#
# MODEL names the model (default: intents). Needs curl, and python3 to read JSON.
set -eu

: "${URL:?set URL to the server, such as http://127.0.0.1:8420}"
: "${KEY:?set KEY to an API key of the role admin}"
MODEL=${MODEL:-intents}
DATA=${1:-$(dirname "$0")/intents.csv}
ZIP=${2:-$MODEL.zip}
API=$URL/api/v1

answer=$(mktemp)
trap 'rm -f "$answer"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n== %s\n' "$*"; }

# Ask the API and keep the answer; an answer that is no success is shown and ends the script.
api() {
    status=$(curl -sS -o "$answer" -w '%{http_code}' -H "Authorization: Bearer $KEY" "$@") || exit 5
    case $status in
        2??) ;;
        *) printf 'HTTP %s: ' "$status" >&2; cat "$answer" >&2; echo >&2; exit 1 ;;
    esac
}

# One field of the last answer, such as `version.number`; nothing where there is none.
field() {
    python3 -c '
import json, sys
value = json.load(open(sys.argv[1]))
for name in sys.argv[2].split("."):
    value = value[int(name)] if name.isdigit() and value else (value or {}).get(name)
print("" if value is None else value)
' "$answer" "$1"
}

# Ask again until a field is one of the given values.
wait_for() {
    path=$1; name=$2; shift 2
    while :; do
        api "$API/$path"
        value=$(field "$name")
        for wanted in "$@"; do
            if [ "$value" = "$wanted" ]; then return; fi
        done
        sleep 0.5
    done
}

# Ask again until a field has a value.
wait_until_known() {
    while :; do
        api "$API/$1"
        if [ -n "$(field "$2")" ]; then return; fi
        sleep 0.5
    done
}

say "Uploading $DATA"
name=$(python3 -c 'import sys, urllib.parse; print(urllib.parse.quote(sys.argv[1]))' "$(basename "$DATA")")
api -X POST -H 'Content-Type: text/csv' -T "$DATA" "$API/datasets?filename=$name"
dataset=$(field id)
echo "dataset $dataset with $(field rows) rows"

say "Training $MODEL"
api -X POST -H 'Content-Type: application/json' \
    -d "{\"model\": \"$MODEL\", \"dataset_id\": \"$dataset\"}" "$API/jobs"
job=$(field id)
echo "job $job"

say "Its log, as it comes"
curl -sSN -H "Authorization: Bearer $KEY" -H 'Accept: text/event-stream' "$API/jobs/$job/logs" |
    python3 -uc '
import json, sys
for line in sys.stdin:
    if line.startswith("data: "):
        for entry in json.loads(line[6:]).get("lines", []):
            print(entry["text"])
'

wait_for "jobs/$job" status succeeded failed cancelled
if [ "$(field status)" != succeeded ]; then
    echo "the job $(field status): $(field error.message)" >&2
    exit 1
fi

wait_until_known "jobs/$job" version.number
version=$(field version.number)
wait_for "models/$MODEL/versions/$version" status ready error
if [ "$(field status)" != ready ]; then
    echo "version $version of $MODEL cannot be used" >&2
    exit 1
fi
say "Version $version of $MODEL is ready"

wait_until_known "jobs/$job" evaluation_id
evaluation=$(field evaluation_id)
wait_for "evaluations/$evaluation" status completed failed cancelled
if [ "$(field status)" != completed ]; then
    echo "the evaluation $(field status): $(field error.message)" >&2
    exit 1
fi
say "Evaluation completed on $(field summary.rows) held-out rows"
echo "base        $(field summary.base.accuracy)"
echo "fine-tuned  $(field summary.fine_tuned.accuracy)"
echo "p-value     $(field summary.p_value), verdict: $(field summary.verdict)"

say "Putting version $version into service"
api -X POST -H 'Content-Type: application/json' -d "{\"version\": $version}" \
    "$API/models/$MODEL/activate"
echo "in service: version $(field active.number)"

say "Asking it"
api -X POST -H 'Content-Type: application/json' \
    -d '{"texts": ["where is my parcel?", "I want my money back"]}' "$API/models/$MODEL/predict"
echo "where is my parcel?   $(field predictions.0.label)"
echo "I want my money back  $(field predictions.1.label)"

say "Downloading it to $ZIP"
curl -sSf -H "Authorization: Bearer $KEY" -o "$ZIP" "$API/models/$MODEL/versions/$version/download"
wc -c < "$ZIP"

say "The last events of the log"
api "$API/events?limit=5"
python3 -c '
import json, sys
for event in json.load(open(sys.argv[1]))["items"]:
    print(event["sequence"], event["type"], event["actor"])
' "$answer"
