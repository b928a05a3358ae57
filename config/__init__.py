"""What the user describes: scenario, units, cluster, devices, profiles, and the seconds that follow from them."""
