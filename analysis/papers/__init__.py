"""The papers whose tables and figures `report --paper` draws, one file each."""
