from .bundle import gather as gather
from .cards import model_card as model_card
from .cards import write_card as write_card
from .report import write_report as write_report
