# lme4's answers for the data sets of this folder; writes lme4.json. Run in this folder: Rscript make_results.R
# tolPwrss: by default lme4 ends its inner loop early, which shifts errors by about one per cent.
library(lme4)
library(jsonlite)
answers <- list()
for (file in Sys.glob("*.csv")) {
  data <- read.csv(file)
  data$pair <- factor(paste(data$bin_high, data$bin_low, sep = "-"))
  for (name in c("listener", "prompt")) data[[name]] <- factor(data[[name]])
  data$triplet <- interaction(data$prompt, data$pair, drop = TRUE)
  terms <- c()
  if (nlevels(data$listener) > 1) terms <- c(terms, "listener")
  if (nlevels(data$prompt) > 1) terms <- c(terms, "prompt")
  if (length(terms) == 2 && nlevels(data$triplet) < nrow(data)) terms <- c(terms, "triplet")
  formula <- as.formula(paste("agreed ~ 0 + pair +", paste0("(1|", terms, ")", collapse = " + ")))
  fit <- glmer(formula, data, family = binomial, nAGQ = if (length(terms) == 1) 25 else 1,
    control = glmerControl(optimizer = "bobyqa", tolPwrss = 1e-12, optCtrl = list(maxfun = 1e5)))
  deviations <- as.list(sqrt(unlist(VarCorr(fit))))
  names(deviations) <- sub("\\..*", "", names(deviations))
  answers[[sub(".csv", "", file)]] <- list(pairs = sub("pair", "", names(fixef(fit))), effects = unname(fixef(fit)),
    errors = unname(sqrt(diag(as.matrix(vcov(fit))))), deviations = deviations,
    log_likelihood = as.numeric(logLik(fit)))
}
write(toJSON(answers, auto_unbox = TRUE, digits = 10, pretty = TRUE), "lme4.json")
