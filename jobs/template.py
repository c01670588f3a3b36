"""What `rehone init` writes."""

TEMPLATE = """\
# `rehone check FILE` validates this file and the data; `rehone schema` lists every key.
name: my-project
task: text-classification
base_model: sentence-transformers/all-MiniLM-L6-v2   # hub name, ./folder or package:NAME/folder

data:
  source: data.csv            # CSV, JSONL, Parquet, a folder of them or a hub name
  input: text
  label: label
  split: {by: stratified, train: 0.7, validation: 0.15, test: 0.15}

method: {name: lora, rank: 8, alpha: 16}

training:
  epochs: 3
  learning_rate: 1.0e-3
  micro_batch_size: 16
  global_batch_size: 32       # a multiple of workers x micro_batch_size
  zero_stage: auto

scaling: {workers: 2, use_gpu: false}

sweep:
  trials: 6
  search:
    training.learning_rate: {loguniform: [1.0e-4, 3.0e-3]}
    method.rank: {choice: [4, 8, 16]}

evaluation: {metric: accuracy}
serving: {port: 8000, replicas: 1, engine: auto}   # the fastest that answers as the trainer does
monitoring: {window: 250, accuracy_drop: 0.05, min_labels: 200}
"""
