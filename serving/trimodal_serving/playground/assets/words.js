// The words of the page in English and Chinese: t("remove", { what: "1" }); translate(document).

const WORDS = {
  skip: ["Skip to the content", "跳到正文"],
  playground: ["playground", "演练场"],
  model: ["Model", "模型"],
  language: ["Language", "语言"],
  theme: ["Theme", "主题"],
  theme_auto: ["as the system", "跟随系统"],
  theme_light: ["light", "浅色"],
  theme_dark: ["dark", "深色"],
  items: ["Items", "条目"],
  text_label: ["Text", "文本"],
  text_example: ["a red circle", "一个红色的圆形"],
  add_text: ["Add the text", "添加文本"],
  text_hint: ["Enter adds it, Shift+Enter starts a new line.", "回车添加，Shift+回车换行。"],
  choose: ["Choose, drop or paste pictures and sounds", "选择、拖入或粘贴图片和声音"],
  record: ["Record a sound", "录音"],
  record_stop: ["Stop recording", "停止录音"],
  recording: ["Recording.", "正在录音。"],
  no_microphone: ["This browser gives no microphone: {why}", "浏览器无法使用麦克风：{why}"],
  similarity: ["Similarity", "相似度"],
  matrix_hint: [
    "Cosines between all items: 1 is the same, 0 is nothing in common.",
    "所有条目两两之间的余弦：1 表示相同，0 表示毫无共同之处。",
  ],
  matrix_none: ["Add two items to compare them.", "添加两个条目即可比较。"],
  matrix_caption: ["Cosine similarities", "余弦相似度"],
  generate: ["Generate", "生成"],
  make_from: ["From: {items}", "依据：{items}"],
  make_none: ["Tick the items above to generate from.", "请在上方勾选作为依据的条目。"],
  make_nothing: [
    "This model was not trained to generate anything.",
    "这个模型没有训练过任何生成任务。",
  ],
  target: ["What to make", "生成什么"],
  a_text: ["a text", "文本"],
  an_image: ["a picture", "图片"],
  a_speech: ["speech", "语音"],
  lang: ["In", "语言"],
  lang_auto: ["the language that fits", "自动选择"],
  lang_en: ["English", "英语"],
  lang_zh: ["Chinese", "中文"],
  seed: ["Seed", "随机种子"],
  cancel: ["Cancel", "取消"],
  cancelled: ["Cancelled.", "已取消。"],
  progress: ["Progress", "进度"],
  seconds: ["{n} s", "{n} 秒"],
  making: ["Generating.", "正在生成。"],
  drawn: ["Part {n} of {of} is drawn.", "已画完第 {n} 部分，共 {of} 部分。"],
  spoken: ["Part {n} of {of} is spoken.", "已说完第 {n} 部分，共 {of} 部分。"],
  done: ["Done in {n} s.", "完成，用时 {n} 秒。"],
  empty_text: ["The model wrote an empty text.", "模型写出了空文本。"],
  keep: ["Add to the items", "加入条目"],
  part_picture: ["The picture so far", "尚未画完的图片"],
  part_speech: ["The speech so far, {n} s", "尚未说完的语音，{n} 秒"],
  made_picture: ["The generated picture", "生成的图片"],
  made_speech: ["The generated speech", "生成的语音"],
  index: ["Index and search", "索引与检索"],
  index_none: [
    "This server keeps no indexes: it was started without --indexes DIR.",
    "这个服务器没有索引：启动时没有给出 --indexes DIR。",
  ],
  new_index: ["New index", "新索引"],
  create: ["Create", "创建"],
  index_name_hint: ["1 to 63 of a-z, 0-9, _ and -", "1 到 63 个字符：a-z、0-9、_ 和 -"],
  in_index: ["Index", "索引"],
  index_entry: ["{name} ({n} items)", "{name}（{n} 个条目）"],
  index_add: ["Put all items into it", "放入所有条目"],
  index_created: ["The index {name} is made.", "索引 {name} 已创建。"],
  index_put: ["{n} items are in the index {name}.", "{n} 个条目已放入索引 {name}。"],
  by: ["By", "依据"],
  search: ["Search", "检索"],
  results: ["Results", "结果"],
  found: ["{n} results.", "{n} 个结果。"],
  nothing_chosen: ["Add an item first.", "请先添加条目。"],
  footer: [
    "Everything on this page stays between your browser and this server.",
    "本页的一切内容只在您的浏览器和这个服务器之间传输。",
  ],
  text: ["text", "文本"],
  image: ["picture", "图片"],
  audio: ["sound", "声音"],
  fused: ["fused", "融合"],
  use: ["use", "选用"],
  use_item: ["use {what}", "选用{what}"],
  remove: ["Remove", "移除"],
  remove_item: ["Remove {what}", "移除{what}"],
  removed: ["{what} is removed.", "已移除{what}。"],
  added: ["{what} is added.", "已添加{what}。"],
  reading: ["Reading {what}.", "正在读取{what}。"],
  score: ["cosine {n}", "余弦 {n}"],
  model_ready: ["Model {name}; it generates: {kinds}.", "模型 {name}；可生成：{kinds}。"],
  model_embeds: ["Model {name}; it only embeds.", "模型 {name}；只计算向量。"],
  model_waits: ["The server is loading its model.", "服务器正在加载模型。"],
  speech: ["speech", "语音"],
  answers: ["answers to questions", "问题的回答"],
  no_server: ["The server cannot be reached.", "无法连接服务器。"],
  bad_answer: ["The server answered with status {status}.", "服务器返回状态 {status}。"],
  bad_sound: [
    "{name} is no sound that this browser or the server can read.",
    "{name} 不是浏览器或服务器能读取的声音。",
  ],
  bad_picture: [
    "{name} is no picture that this browser or the server can read.",
    "{name} 不是浏览器或服务器能读取的图片。",
  ],
  bad_kind: ["{name} is neither a picture nor a sound.", "{name} 既不是图片也不是声音。"],
};

const LANGUAGES = ["en", "zh"];
let current = 0;

export function t(key, values = {}) {
  return WORDS[key][current].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

export function language() {
  return LANGUAGES[current];
}

export function setLanguage(code) {
  current = Math.max(0, LANGUAGES.indexOf(code));
  document.documentElement.lang = current ? "zh-CN" : "en";
  translate(document);
  document.dispatchEvent(new Event("language"));
}

function translate(root) {
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll("[data-t-label]")) {
    node.setAttribute("aria-label", t(node.dataset.tLabel));
  }
  for (const node of root.querySelectorAll("[data-t-placeholder]")) {
    node.placeholder = t(node.dataset.tPlaceholder);
  }
}
