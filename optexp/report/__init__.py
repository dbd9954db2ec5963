"""What people look at: tables and figures made from run directories."""
