// Exchanges a secret for a key, which this tab keeps; the code of `obscura dashboard` comes behind the # of the address.
const form = document.getElementById("login");
const field = document.getElementById("secret");
const told = document.getElementById("told");
const button = form.querySelector("button");

async function login(secret) {
  button.disabled = true;
  told.textContent = "Logging in…";
  try {
    const answer = await fetch("/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ secret }),
    });
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error);
    sessionStorage.setItem("key", found.key);
    sessionStorage.setItem("scope", found.scope);
    location.replace("/dashboard");
  } catch (fault) {
    told.textContent = fault instanceof TypeError ? "The node does not answer: is it running?" : `Not logged in: ${fault.message}.`;
    button.disabled = false;
    field.select();
    field.focus();
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  login(field.value.trim());
});

const code = new URLSearchParams(location.hash.slice(1)).get("code");
const why = sessionStorage.getItem("ended");
sessionStorage.clear();
if (location.hash) history.replaceState(null, "", "/");
if (code) {
  login(code);
} else {
  if (why) told.textContent = why;
  field.focus();
}
