import "./app/app.css";
import { storedCredential } from "./app/credential";
import { sendEarly } from "./app/early";
import { beginPage } from "./app/pages";

// The page's first script is small: the console's code, the screen's and the first answers are on their way together.
void import("./main");

const credential = storedCredential();
if (credential) {
  const path = location.pathname.replace(/^\/ui/, "");
  const page = path === "/" ? "/overview" : path; // where most users are led to
  beginPage(page);
  sendEarly(credential, page, location.search).catch(() => undefined); // the calls that follow report it
}
