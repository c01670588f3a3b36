"""What clients speak to: routes, who may ask and how much, what is seen from outside."""
