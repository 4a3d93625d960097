"""Who leads: the state machine of a replica, promotion, and whether log and catalog fit."""
