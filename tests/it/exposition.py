"""Reads what /metrics said (a JSON list of texts in the file named first) with the parser of Prometheus' own Python client,
and prints for each text its samples as [name, labels, value], and its families' types. A text that is none is an error."""

import json
import sys

from prometheus_client.parser import text_string_to_metric_families


def read(text):
    families = list(text_string_to_metric_families(text))
    samples = [[sample.name, sample.labels, sample.value] for family in families for sample in family.samples]
    return {"types": {family.name: family.type for family in families}, "samples": samples}


with open(sys.argv[1], encoding="utf-8") as texts:
    json.dump([read(text) for text in json.load(texts)], sys.stdout)
