// Before the first paint, so that a chosen theme does not flash up as the other one.
try {
  const theme = localStorage.getItem("nexus-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // No storage, no choice: the system's theme.
}
