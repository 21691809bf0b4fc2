from .batches import Batch as Batch
from .batches import Streams as Streams
from .batches import read_games as read_games
from .catalog import add as add
from .packing import pack as pack
from .traces import Trace as Trace
from .traces import TraceSet as TraceSet
from .traces import open_traces as open_traces
