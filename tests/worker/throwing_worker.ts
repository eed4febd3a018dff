throw new Error("Module 7 throws when it is loaded");
