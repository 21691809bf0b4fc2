from .board import Board as Board
from .board import BoardRow as BoardRow
from .board import read_board as read_board
from .checks import check as check
from .maintaining import accept as accept
from .submission import read_submission as read_submission
