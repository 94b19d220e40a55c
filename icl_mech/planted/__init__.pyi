from .found import Finding as Finding, read_outs as read_outs
from .plant import DECOYS as DECOYS, Plant as Plant, Truth as Truth, random_plant as random_plant
from .planting import Planted as Planted, planted_model as planted_model
