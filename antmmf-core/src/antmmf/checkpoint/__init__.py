"""Checkpoints: folders of safetensors and JSON that are whole or not there; nothing is pickled."""

from antmmf.checkpoint.loading import Checkpoint as Checkpoint
from antmmf.checkpoint.loading import find_checkpoint as find_checkpoint
from antmmf.checkpoint.loading import load_checkpoint as load_checkpoint
from antmmf.checkpoint.shards import pack as pack
from antmmf.checkpoint.shards import shard_like as shard_like
from antmmf.checkpoint.shards import unpack as unpack
from antmmf.checkpoint.store import Checkpoints as Checkpoints
from antmmf.checkpoint.weights import Transfer as Transfer
from antmmf.checkpoint.weights import load_model as load_model
from antmmf.checkpoint.weights import load_optimizer as load_optimizer
from antmmf.checkpoint.weights import take_weights as take_weights
