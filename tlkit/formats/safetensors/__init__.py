"""SafeTensors files and folders, read and written."""
