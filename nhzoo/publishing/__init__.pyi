from .bundle import gather as gather
from .cards import model_card as model_card
from .cards import write_card as write_card
from .facts import facts_of as facts_of
from .records import evaluation_record as evaluation_record
from .report import write_report as write_report
