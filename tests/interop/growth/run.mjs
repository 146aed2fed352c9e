export async function run({ connect, report }) {
  const llm = connect("", { server: "recorder" });
  const whole = await llm.complete("hi");
  return {
    events: (await report.all(llm.stream("hi"))).map(report.event),
    joined: (await report.all(llm.streamText("hi"))).join(""),
    whole: {
      text: whole.text,
      finish_reason: whole.finishReason,
      parts: report.message(whole.message).parts,
    },
  };
}
