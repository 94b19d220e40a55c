from .expected import expected_cost as expected_cost
from .sizes import Sizes as Sizes
from .work import Cost as Cost, Work as Work
