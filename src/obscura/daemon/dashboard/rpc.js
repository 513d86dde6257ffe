// Calls of the node, with the key of this tab's login.
export class Gone extends Error {} // the node does not answer
export class Refused extends Error {} // it answered: no

const QUICK_MS = 20_000;
let number = 0;

export const scope = sessionStorage.getItem("scope") ?? "read";
export const may = (wanted) => ["read", "write", "admin"].indexOf(scope) >= ["read", "write", "admin"].indexOf(wanted);

export function leave(why) {
  sessionStorage.clear();
  if (why) sessionStorage.setItem("ended", why);
  location.replace("/");
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      ...options,
      headers: { Authorization: `Bearer ${sessionStorage.getItem("key") ?? ""}`, "Content-Type": "application/json" },
    });
  } catch (fault) {
    throw new Gone("the node does not answer");
  }
  if (answer.status === 401) {
    leave("The login is over, or the node was started anew. Log in again.");
    throw new Gone("logged out");
  }
  if (!answer.ok) throw new Refused(`the node answered ${answer.status}`);
  return answer;
}

// Several methods in one request: [[name, parameters], ...] -> one {result} or {error} each, in the same order.
export async function batch(calls, wait_ms = QUICK_MS) {
  const texts = calls.map(([method, params = {}]) => ({ jsonrpc: "2.0", id: ++number, method, params }));
  const signal = AbortSignal.timeout(wait_ms);
  try {
    const answers = await (await ask("/rpc", { method: "POST", body: JSON.stringify(texts), signal })).json();
    const found = new Map(answers.map((each) => [each.id, each]));
    return texts.map((text) => found.get(text.id) ?? { error: { message: "no answer" } });
  } catch (fault) {
    throw fault instanceof Refused || fault instanceof Gone ? fault : new Gone("the answer broke off");
  }
}

export async function call(method, params = {}, wait_ms = QUICK_MS) {
  const [answer] = await batch([[method, params]], wait_ms);
  if (answer.error) throw new Refused(answer.error.message);
  return answer.result;
}

// Events as they happen. EventSource cannot send the key, so the stream is read by hand: lines `data: JSON`, blank between.
export async function* events() {
  const reader = (await ask("/events")).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const said = (rest + value).split("\n\n");
      rest = said.pop();
      for (const piece of said) if (piece.startsWith("data: ")) yield JSON.parse(piece.slice(6));
    }
  } catch (fault) {
    throw new Gone("the stream broke off");
  } finally {
    reader.cancel().catch(() => {});
  }
}

export async function logout() {
  try {
    await ask("/logout", { method: "POST" });
  } finally {
    leave("You are logged out.");
  }
}
