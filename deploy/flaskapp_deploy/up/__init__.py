"""An application on a cluster of this machine: installed, watched, and asked."""
